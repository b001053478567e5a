"""Findings as tables, figures, sentences and pages.

May import the rooms up to `experiments`, and `findings`.
Start reading at `write` (the files of a report), then `comparison_text` (its sections) and `tables`.
"""
