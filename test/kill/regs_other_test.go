//go:build !amd64

package kill

import "errors"

// canFail says that the registers of this machine are known.
const canFail = false

func skip(int) error { return errors.ErrUnsupported }

func setResult(int, int64) error { return errors.ErrUnsupported }
