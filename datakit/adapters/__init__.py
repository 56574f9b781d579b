"""Batches in the form that other projects' trainers take."""
