"""The commands of the command line, by what people want of them. Heavy modules load inside those that need them."""
