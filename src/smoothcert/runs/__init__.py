"""Runs: configuration, training, certification, and what they leave on disk."""
