"""The batch's own targets as a prior: grouped, binned, remembered, gathered over ranks."""
