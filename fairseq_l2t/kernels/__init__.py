"""Operations with correct and fast second derivatives."""
