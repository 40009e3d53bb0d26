"""Studies as Ray jobs: what is packed, the package, the job's request, and the job itself."""
