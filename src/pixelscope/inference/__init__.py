"""Process any number of files with any model into one table: ordered, resumable, in bounded memory."""
