"""Measurements that the cards and the results quote; each prints a table and can record it in a bundle."""
