"""One kind of store: a local OCI image layout and a remote OCI registry behind the same interface."""
