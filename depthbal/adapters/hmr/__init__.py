"""Human mesh recovery: SPIN's regressor re-trained with Balanced MSE."""
