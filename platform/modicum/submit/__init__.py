"""Studies as Ray jobs: what travels to the cluster, the job, and following it."""
