"""Evaluations, comparisons, audits, explorations and studies -> self-contained HTML pages and their plots."""
