"""Reports: pictures and tables made from what a run folder holds."""
