"""Build HTML reports from run folders."""
