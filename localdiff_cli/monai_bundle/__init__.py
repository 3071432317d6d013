"""Our bundles as MONAI knows them: its metadata, and the workflow that ``python -m monai.bundle run`` executes."""
