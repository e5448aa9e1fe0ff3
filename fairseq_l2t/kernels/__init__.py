"""Operations whose second derivatives exist, are right and are fast."""
