"""An OCI runtime spec → a running process: the launcher, and the zygote that is the containers' parent."""
