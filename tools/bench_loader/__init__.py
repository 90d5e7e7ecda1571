"""Images a second of the training loader, open_clip's and a plain StreamingDataset's."""
