"""Any number of files through a model into one table, in order, in bounded memory, resumable; knows no model."""
