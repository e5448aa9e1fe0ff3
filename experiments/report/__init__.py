"""Reports: tables and plots, made from records alone."""
