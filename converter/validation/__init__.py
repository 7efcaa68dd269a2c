"""Which cameras are wrong, why, and how to mend them: checks over tracks, bundles and datasets."""
