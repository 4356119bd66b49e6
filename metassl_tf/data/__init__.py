"""Where examples come from, who of them is labeled, and how they become batches."""
