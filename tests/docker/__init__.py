"""The images and the compose file, as far as they can be tried without a container engine."""
