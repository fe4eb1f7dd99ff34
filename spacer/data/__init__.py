"""From files to batches: samples and their index, decoded media, processed prompts, loaders."""
