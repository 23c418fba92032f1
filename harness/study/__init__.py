"""Studies: settings searched under equal budgets, each judged on fresh seeds; runs are trained by the sweep."""
