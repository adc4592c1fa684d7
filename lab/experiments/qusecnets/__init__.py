"""QuSecNets (Khalid et al. 2019, section IV), repeated and then attacked adaptively."""
