"""From files to batches: tables of radiographs, readers of data sets, splits, a cache and augmentation."""
