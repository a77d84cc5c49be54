"""An Evaluation -> pictures, tables and one self-contained HTML page."""
