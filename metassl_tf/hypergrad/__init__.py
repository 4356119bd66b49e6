"""Derivatives of what training leads to: products with curvature, solvers, per-example scores and gradients."""
