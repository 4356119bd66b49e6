"""Programs of the project itself: measuring, tables, environments."""
