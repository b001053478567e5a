"""Measurements of speed, run by hand on an idle machine: see README.md beside this file."""
