"""What a checkout needs beside the product: the demo's story and the base images it stands on."""
