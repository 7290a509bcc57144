"""The engine of a sweep: trials in Optuna's storage, a coordinator, and workers that train them."""
