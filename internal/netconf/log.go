package netconf

import (
	"github.com/libnet-cni/libnet/internal/jsonr"
	"github.com/libnet-cni/libnet/internal/report"
)

// The keys of log.
const (
	logFile = iota
	logLevel
)

var logTable = []Key{
	logFile:  {Name: "file", Of: attachers, Cleanup: true},
	logLevel: {Name: "level", Of: attachers, Cleanup: true},
}

// Log is where and when calls are logged.
type Log struct {
	File  string // empty: nowhere
	Level report.Level
}

func readLog(v jsonr.Value) (log Log) {
	if v.Missing() {
		return log
	}
	in := inside(v, logTable)
	in[logFile].String(&log.File)
	log.Level = oneOf(in[logLevel], report.Levels()...)
	if log.File != "" && !isPlace(log.File) {
		in[logFile].Refuse("an absolute path")
	}
	return log
}

// LooseLog reads what a configuration says about logs. None of what is wrong counts.
func LooseLog(conf *jsonr.Object) Log {
	conf = conf.Apart()
	log := readLog(conf.At(table[keyLog].Name))
	if conf.Err() != nil {
		return Log{}
	}
	return log
}
