"""Files as they are distributed → a folder to train from: parts, archive, media, index."""
