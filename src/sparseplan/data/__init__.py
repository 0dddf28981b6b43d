"""Data sets: one file each, read into memory as `trainer.data.DataSplits`; nothing is downloaded or executed."""
