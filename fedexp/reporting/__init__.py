"""Readers of run folders: tables, plots and reports. Nothing here imports training code."""
