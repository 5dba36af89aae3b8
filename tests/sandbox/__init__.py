"""The sandbox does what the tests rely on."""
