"""The evidence of Balanced MSE: exact, tabulated or compiled, and the fused mean over labels."""
