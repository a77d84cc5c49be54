"""Hilum: a folder of chest radiographs into a classifier that can be trusted. Research use only."""

__version__ = "0.1.0"
