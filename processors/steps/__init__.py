"""The steps of a frame, from its Kafka record to its finished offset, in the order in which `chain` lists them."""
