"""From files to batches: scenes and questions, samples, decoded media, processed prompts, the data module."""
