"""FSPO inside other people's trainers: one file each, which alone imports that trainer."""
