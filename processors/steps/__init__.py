"""The steps of a frame, from its Kafka record to its finished offset; `chain` lists them in the order of the way."""
