"""Figures and documents, made from run folders alone."""
