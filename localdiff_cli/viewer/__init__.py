"""Volumes to turn the pages of, inside one HTML file that opens without a network."""
