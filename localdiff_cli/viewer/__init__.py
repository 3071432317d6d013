"""Volumes to scroll through, inside one HTML file that opens without a network."""
