"""Any number of files through a model into one table: ordered, resumable, in bounded memory. Knows no model."""
