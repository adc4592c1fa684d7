"""Preprocessing against adaptive attacks (Qiu et al., sections 5 and 6), repeated and then attacked adaptively."""
