"""The Python door: what `import hilum` gives. Thin over the rooms, which do the work."""
