"""What the tests share: a whole Vitrina on servers of their own."""
