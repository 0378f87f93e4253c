"""Readers of run folders: tables, plots and reports. Nothing here imports training code."""

from fedexp.reporting.fonts import keep_the_list_of_fonts

keep_the_list_of_fonts()  # before any module of this folder imports matplotlib
